"""verl's custom reward function, answered by Sluice's verification service.

    sluice init run.yaml && sluice prepare run.yaml --dir RUN               RUN: a folder, made here
    sluice serve verification RUN --address 127.0.0.1:50061                 says when it serves
    SLUICE_VERIFICATION=127.0.0.1:50061 python -m verl.trainer.main_ppo ... \
        custom_reward_function.path=docs/examples/verl_reward.py custom_reward_function.name=compute_score

verl loads this file and calls `compute_score(data_source=, solution_str=, ground_truth=, extra_info=)` for every
answer; what the check needs beside the expected answer is `extra_info["spec"]`. A verdict that the verifier could not
give stops the run: verl has no word for a missing reward.
"""

from __future__ import annotations

import os

from pipeline.verification_client import VerificationClient, verl_score

CHECKS = {"openai/gsm8k": "math", "reverse_words": "exact"}
"""Which check answers of a data source get."""

compute_score = verl_score(VerificationClient(os.environ.get("SLUICE_VERIFICATION", "127.0.0.1:50061")), CHECKS)
