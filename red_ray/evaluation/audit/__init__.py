"""An audit of judges: a suite from labelled rows, the answers to it, figures and an outcome."""

from red_ray.evaluation.audit.asking import AuditJob
from red_ray.evaluation.audit.audit import run_audit
from red_ray.evaluation.audit.folder import AuditFolder
from red_ray.evaluation.audit.suite import AuditRows

__all__ = ["AuditFolder", "AuditJob", "AuditRows", "run_audit"]
