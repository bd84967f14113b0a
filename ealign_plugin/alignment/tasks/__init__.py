"""The instruction tasks: sample → (instruction, target). Three are EAMA's (arXiv 2402.19404, section 3):

========  ==============================  =============================================
task      input                           target
========  ==============================  =============================================
caption   photo + context                 the caption
sentence  photo + one article sentence    yes / no
entity    photo + context                 the article's names that are also in the caption
========  ==============================  =============================================

One model learns all with one language-model loss. The paper publishes neither templates nor the list's
separator: those of `ealign_plugin.alignment.prompts` are ours, and config values. Other packages add tasks
by `register_task`.
"""

from ealign_plugin.alignment.tasks.base import (
    TASKS,
    AlignmentTask,
    Example,
    TaskOptions,
    register_task,
)
from ealign_plugin.alignment.tasks.caption import CaptionTask
from ealign_plugin.alignment.tasks.entity import EntityTask
from ealign_plugin.alignment.tasks.sentence import SentenceTask

# In this order: the random draws of a sample follow it.
for _task in (CaptionTask, SentenceTask, EntityTask):
    register_task(_task)

BUILT_IN_TASKS = (CaptionTask.name, SentenceTask.name, EntityTask.name)
"""Tasks of this package; the two passes ask them, see `ealign_plugin.inference`."""

__all__ = [
    "BUILT_IN_TASKS",
    "TASKS",
    "AlignmentTask",
    "CaptionTask",
    "EntityTask",
    "Example",
    "SentenceTask",
    "TaskOptions",
    "register_task",
]
