"""What of reidkit works on this machine, and what to type where it does not."""

from reidkit.doctor.finding import Finding as Finding
from reidkit.doctor.report import Report as Report
from reidkit.doctor.report import examine as examine
