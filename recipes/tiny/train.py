"""Train a packaged small model: `python -m recipes.tiny.train instrument=llava`."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import hydra
import lightning
import torch
from hydra.utils import instantiate, to_absolute_path
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader

from ivcp.core.types import Sample
from ivcp.datasets.shapes import TASKS, Shapes
from ivcp.metrics.grounding import box_iou
from recipes.tiny.data import NO_INPUTS, PackedScenes, collate
from recipes.tiny.instrument import VISUAL, Instrument
from recipes.tiny.module import TrainingHeads, language_loss


class TinyTraining(lightning.LightningModule):
    """The model, its auxiliary heads, a cosine over the steps, and validation by generation.

    Args:
        cfg: See `conf/train.yaml`.
    """

    def __init__(self, cfg: DictConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.instrument: Instrument = instantiate(cfg.instrument)
        self.tokenizer = self.instrument.tokenizer
        self.model: Any = self.instrument.model()
        self.processor = self.instrument.processor(self.model.config)
        self.heads = TrainingHeads(self.instrument.hidden)
        numbers = torch.tensor(
            self.tokenizer.convert_tokens_to_ids(list(self.instrument.coordinates))
        )
        value_of = torch.full((self.model.config.text_config.vocab_size,), -1)
        value_of[numbers] = torch.arange(len(numbers))
        self.register_buffer("numbers", numbers, persistent=False)
        self.register_buffer("value_of", value_of, persistent=False)
        self.image_start = PackedScenes(self.instrument, self.model.config, size=1).image_start

    def configure_optimizers(self) -> Any:
        """AdamW, warmed up over 100 steps, then a cosine down to a hundredth."""
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.cfg.lr, betas=(0.9, 0.98), weight_decay=self.cfg.weight_decay
        )

        def factor(step: int) -> float:
            cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.cfg.steps)))
            return min(1.0, (step + 1) / 100) * max(0.01, cosine)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        inputs = {name: value for name, value in batch.items() if name not in NO_INPUTS}
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
            self.instrument.sigma,
        )
        self.log_dict({f"loss/{name}": loss.detach() for name, loss in losses.items()})
        self.log_dict(
            {
                "images": float((self.global_step + 1) * self.cfg.batch_size),
                "lr": self.optimizers().param_groups[0]["lr"],
            }
        )
        return sum(losses.values())

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Generate answers of one task and log its accuracy."""
        task = TASKS[batch_idx]
        scenes = Shapes(task=task, split="val", size=self.cfg.val_size)
        samples = [scenes[index] for index in range(len(scenes))]
        right = [
            value for start in range(0, len(samples), 50)
            for value in self.answered(samples[start : start + 50])
        ]  # fmt: skip
        self.log(f"val/{task}", sum(right) / len(right), prog_bar=True)

    def on_validation_end(self) -> None:
        self.instrument.save(Path.cwd() / "model", self.model)

    def answered(self, samples: list[Sample]) -> list[bool]:
        """Which answers are right: the same word, or a box with an IoU of at least 0.5."""
        family = self.instrument.family
        encoded = family.encode(self.processor, samples)
        inputs = {name: value.to(self.device) for name, value in encoded.inputs.items()}
        out = self.model.generate(
            **inputs, max_new_tokens=16, do_sample=False,
            eos_token_id=self.tokenizer.eos_token_id, pad_token_id=self.tokenizer.pad_token_id,
        )  # fmt: skip
        texts = self.tokenizer.batch_decode(
            out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        right = []
        for sample, text, frame in zip(samples, texts, encoded.box_frames, strict=True):
            if isinstance(sample.answer, str):
                right.append(text.strip() == sample.answer)
                continue
            box = family.parse_box(text)
            right.append(box_iou(frame.to_pixels(box) if box else None, sample.answer) >= 0.5)
        return right

    def train_dataloader(self) -> DataLoader:
        scenes = PackedScenes(
            self.instrument,
            self.model.config,
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


@hydra.main(config_path="conf", config_name="train", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Train, validate and checkpoint; `resume=PATH` goes on from a checkpoint."""
    lightning.seed_everything(cfg.seed)
    module = TinyTraining(cfg)
    trainer = lightning.Trainer(
        max_steps=cfg.steps,
        accelerator=cfg.accelerator,
        devices=1,
        precision=cfg.precision,
        gradient_clip_val=1.0,
        logger=CSVLogger(".", name="", version="log-on" if cfg.resume else "log"),
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
    trainer.fit(module, ckpt_path=cfg.resume and to_absolute_path(cfg.resume))
    trainer.validate(module, verbose=True)


if __name__ == "__main__":
    main()
