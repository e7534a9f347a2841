"""From sources to batches: one loader for the hub, files and packages, the leak guard, sampling, tokenising.

`load_corpus` → `tokenize` → `length_grouped_order` and `Collator`. It does not know models or the Trainer.
"""

from trainer_job.data.collate import Collator, length_grouped_order
from trainer_job.data.corpus import Corpus, load_corpus
from trainer_job.data.tokenise import tokenize

__all__ = ["Collator", "Corpus", "length_grouped_order", "load_corpus", "tokenize"]
