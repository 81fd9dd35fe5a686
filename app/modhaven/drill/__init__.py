"""The failover drill: breaks a cluster on purpose, under load, and measures what users see.

``playbooks/drill.yml`` starts it on the controller. Standard library only, so that Ansible's own
Python runs it. ``load``, ``builds`` and ``watch`` are programs of one file each that run on hosts.
"""
