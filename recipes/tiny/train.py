"""Train the packaged small Qwen2.5-VL: `python -m recipes.tiny.train minutes=90`."""

from __future__ import annotations

import functools
import math
import re
import time
from pathlib import Path

import hydra
import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader

from ivcp.models.qwen25vl import Qwen25VL
from recipes.tiny.build import build_image_processor, build_model, build_tokenizer, save
from recipes.tiny.data import INPUTS, TASKS, VISUAL, PackedScenes, collate, validation_samples
from recipes.tiny.module import TrainingHeads, language_loss

NUMBERS = 1000


class TinyTraining(lightning.LightningModule):
    """The model, its auxiliary heads, a schedule over time, and validation by generation.

    Args:
        cfg: See `conf/train.yaml`.
    """

    def __init__(self, cfg: DictConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.tokenizer, self.image_processor = build_tokenizer(), build_image_processor()
        self.model = build_model(self.tokenizer, layers=cfg.layers, hidden=cfg.hidden)
        self.heads = TrainingHeads(cfg.hidden)
        self.register_buffer("elapsed", torch.zeros((), dtype=torch.float64))
        numbers = torch.tensor(
            [self.tokenizer.convert_tokens_to_ids(str(number)) for number in range(NUMBERS)]
        )
        value_of = torch.full((self.model.config.text_config.vocab_size,), -1)
        value_of[numbers] = torch.arange(NUMBERS)
        self.register_buffer("numbers", numbers, persistent=False)
        self.register_buffer("value_of", value_of, persistent=False)
        self.image_start = PackedScenes(self.tokenizer, self.image_processor, size=1).image_start
        self.tick = 0.0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            self.parameters(), lr=self.cfg.lr, betas=(0.9, 0.98), weight_decay=self.cfg.weight_decay
        )

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Warm up over steps, then follow a cosine over the time budget; stop when it is spent."""
        now = time.monotonic()
        self.elapsed += min(now - self.tick, 60.0) if self.tick else 0.0
        self.tick = now
        progress = min(1.0, self.elapsed.item() / (60 * self.cfg.minutes))
        factor = max(0.01, 0.5 * (1 + math.cos(math.pi * progress)))
        for group in self.optimizers().param_groups:
            group["lr"] = self.cfg.lr * min(1.0, (self.global_step + 1) / 100) * factor
        if progress >= 1.0:
            self.trainer.should_stop = True

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        inputs = {name: batch[name] for name in INPUTS}
        out = self.model.model(**inputs, output_hidden_states=True, use_cache=False)
        answered = batch["labels"] != -100
        logits = self.model.lm_head(out.last_hidden_state[answered])
        image = self.image_start + torch.arange(VISUAL, device=self.device)
        losses = self.heads(out.hidden_states, batch, image.expand(len(answered), -1))
        weights = torch.ones_like(batch["labels"], dtype=torch.float)
        word = batch["boxes"][..., 0].isnan()  # a letter, yes or no is the whole answer
        weights.scatter_(1, batch["last"], 1 + (self.cfg.word_weight - 1) * word.float())
        losses["language"] = language_loss(
            logits,
            batch["labels"][answered],
            weights[answered],
            self.numbers,
            self.value_of,
            self.cfg.sigma,
        )
        self.log_dict({f"loss/{name}": loss.detach() for name, loss in losses.items()})
        self.log_dict(
            {
                "minutes": self.elapsed.float() / 60,
                "images": float(self.global_step * self.cfg.batch_size),
                "lr": self.optimizers().param_groups[0]["lr"],
            }
        )
        return sum(losses.values())

    def on_validation_start(self) -> None:
        self.tick = 0.0  # validation does not use up the time budget

    def validation_step(self, batch: list[int], batch_idx: int) -> None:
        """Generate answers of one task and log its accuracy."""
        task = TASKS[batch_idx]
        right = [correct(*pair) for pair in self.answers(task)]
        self.log(f"val/{task}", sum(right) / len(right), prog_bar=True)

    def on_validation_end(self) -> None:
        self.tick = 0.0
        save(Path.cwd() / "model", self.model, self.tokenizer)

    def answers(self, task: str) -> list[tuple[object, str]]:
        """(ground truth, generated text) of the validation samples of a task."""
        tokenizer, pairs = self.tokenizer, []
        samples = [s for s in validation_samples(self.cfg.val_size) if s.task == task]
        for start in range(0, len(samples), 50):
            chunk = samples[start : start + 50]
            image = "<|vision_start|>" + "<|image_pad|>" * VISUAL + "<|vision_end|>"
            inputs = tokenizer(
                [
                    f"<|im_start|>user\n{image}{Qwen25VL().format_question(sample)}<|im_end|>\n"
                    "<|im_start|>assistant\n"
                    for sample in chunk
                ],
                return_tensors="pt",
                padding=True,
                return_token_type_ids=False,
            )
            pixels = self.image_processor([s.images[0] for s in chunk], return_tensors="pt")
            token = self.model.config.image_token_id
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == token).int()
            out = self.model.generate(
                **inputs.to(self.device), **pixels.to(self.device), max_new_tokens=16
            )
            texts = tokenizer.batch_decode(
                out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
            )
            pairs += [(sample.answer, text) for sample, text in zip(chunk, texts, strict=True)]
        return pairs

    def train_dataloader(self) -> DataLoader:
        scenes = PackedScenes(
            self.tokenizer,
            self.image_processor,
            start=self.global_step * self.cfg.batch_size,
            size=10**7,
            referring=self.cfg.referring,
            counting=self.cfg.counting,
            seed=self.cfg.seed,
        )
        return DataLoader(
            scenes,
            batch_size=self.cfg.batch_size,
            num_workers=self.cfg.workers,
            collate_fn=functools.partial(collate, pad=self.tokenizer.pad_token_id),
        )

    def val_dataloader(self) -> DataLoader:
        return DataLoader(range(len(TASKS)), batch_size=1)


def correct(answer: object, text: str) -> bool:
    """Exact word, or IoU of at least 0.5 for a box."""
    if isinstance(answer, str):
        return text.strip() == answer
    box = re.search(r"\[(\d+), (\d+), (\d+), (\d+)\]", text)
    if not box:
        return False
    a, b = torch.tensor([float(v) for v in box.groups()]), torch.tensor(answer)
    low, high = torch.maximum(a[:2], b[:2]), torch.minimum(a[2:], b[2:])
    overlap = (high - low).clamp_min(0).prod()
    area = (a[2:] - a[:2]).clamp_min(0).prod() + (b[2:] - b[:2]).prod()
    return bool(overlap >= 0.5 * (area - overlap))


@hydra.main(config_path="conf", config_name="train", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Train, validate and checkpoint; `resume=PATH` goes on from a checkpoint."""
    lightning.seed_everything(cfg.seed)
    module = TinyTraining(cfg)
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator=cfg.accelerator,
        devices=1,
        precision=cfg.precision,
        gradient_clip_val=1.0,
        logger=CSVLogger(".", name="", version="log"),
        callbacks=[
            ModelCheckpoint(
                "checkpoints", every_n_train_steps=cfg.val_every, save_last=True, save_top_k=1
            ),
            TQDMProgressBar(refresh_rate=cfg.log_every),
        ],
        val_check_interval=cfg.val_every,
        num_sanity_val_steps=0,
        log_every_n_steps=cfg.log_every,
    )
    trainer.fit(module, ckpt_path=cfg.resume)
    trainer.validate(module, verbose=True)


if __name__ == "__main__":
    main()
