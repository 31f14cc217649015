"""TRL's GRPOTrainer, rewarded by Sluice's verification service.

    sluice init run.yaml && sluice prepare run.yaml --dir RUN               RUN: a folder, made here
    sluice serve verification RUN --address 127.0.0.1:50061                 says when it serves
    python docs/examples/trl_reward.py 127.0.0.1:50061 MODEL --steps 10     a folder or a Hugging Face id

Needs `pip install trl datasets`. The data set's columns: `prompt`, `answer` (what the check compares with) and, where
the check needs more, `spec`. A verdict that the verifier could not give is None, which TRL leaves out of the mean.
"""

from __future__ import annotations

import argparse

from pipeline.verification_client import VerificationClient, trl_reward

WORDS = ("stone", "river", "cloud", "green", "table", "horse", "apple", "chair")


def main() -> None:
    """Train to spell words backward."""
    import torch
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    parser = argparse.ArgumentParser()
    parser.add_argument("address", help="host:port of the verification service")
    parser.add_argument("model", help="a folder or a Hugging Face id")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", default="trl-out", help="where TRL writes")
    args = parser.parse_args()
    rows = Dataset.from_list([{"prompt": f"{word} backward: ", "answer": word[::-1]} for word in WORDS])
    gpu = torch.cuda.is_available()
    config = GRPOConfig(
        output_dir=args.out,
        max_steps=args.steps,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=8,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        bf16=gpu,
        use_cpu=not gpu,
    )
    with VerificationClient(args.address) as client:
        reward = trl_reward(client, "exact")
        GRPOTrainer(model=args.model, reward_funcs=reward, args=config, train_dataset=rows).train()


if __name__ == "__main__":
    main()
