"""Learning: turns verified rollouts into optimiser steps and new weights."""
