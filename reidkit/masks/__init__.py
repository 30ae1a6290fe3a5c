"""Part masks: from label maps of any human parser to one file that training reads."""
