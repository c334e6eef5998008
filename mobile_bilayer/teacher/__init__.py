"""The paper's networks, and the way in for its public checkpoints.

>>> from mobile_bilayer.teacher import load_public
>>> teacher = load_public("runs")  # the folder that holds the run folders
>>> teacher(source_imgs=..., source_stickmen=..., source_segs=..., source_poses=..., target_poses=...)
"""

from __future__ import annotations

from mobile_bilayer.teacher.config import TeacherConfig
from mobile_bilayer.teacher.importing import import_public, load_public
from mobile_bilayer.teacher.teacher import Teacher
from mobile_bilayer.teacher.weights import SHIPPED, load_teacher, save_teacher

__all__ = ["SHIPPED", "Teacher", "TeacherConfig", "import_public", "load_public", "load_teacher", "save_teacher"]
