"""What the columns of the results table mean, for readers of the page."""

COLUMN_MEANINGS = {
    "model": "The model, by the name of its configuration.",
    "dataset": "The dataset, by the name of its configuration.",
    "method": "The method that chose the visual tokens to keep; “Unpruned” keeps all of them.",
    "variant": "Settings in which runs of one method differ, and seeds.",
    "ratio": "The keep ratio that was asked for: the fraction of the visual tokens to keep.",
    "budget": "What was asked for where the ratio alone does not say it, and what came out.",
    "layer": "The decoder layer before which tokens are pruned; “2+6” at two layers, “0 after 2” "
    "before layer 0, after a first pass of two layers.",
    "primary_metric": "The metric of the score, with its unit.",
    "value": "The score of all samples; failed samples count as wrong.",
    "relative": "The score in percent of the unpruned run's.",
    "difference": "The score minus the unpruned run's, with the 95 % interval of a paired "
    "bootstrap over the samples.",
    "mcnemar_p": "McNemar's exact test on the answers that pruning fixed and regressed.",
    "fixed": "Answers that only this run has right, of the two.",
    "regressed": "Answers that only the unpruned run has right.",
    "keep_ratio": "Visual tokens that survive the last pruned layer, of all.",
    "layer_average_ratio": "Visual tokens that a decoder layer processed on average, of all.",
    "kept_in_box": "Visual tokens inside the true box that survive the last pruned layer, of those "
    "there; mean over the samples.",
    "coverage": "The largest distance from a visual token to the nearest one kept, in percent of "
    "the image's diagonal; mean over the samples.",
    "kv_cache_ratio": "Bytes of the KV cache after prefill, of the unpruned ones.",
    "kv_cache_bytes": "Bytes of the KV cache after prefill, mean of a sample.",
    "prefill_flops_ratio": "Operations of the language model's prefill by formula, of the unpruned "
    "ones.",
    "prefill_ms": "Decoder layers in prefill, median. Times compare only within one sweep.",
    "pruning_overhead_ms": "Choosing tokens and compacting states, median.",
    "decode_ms_per_token": "Each token after the first one, median.",
    "samples": "Samples that were scored.",
}
"""By the column's name."""
