"""Endorsements as things of their own: what vendors are asked for, how answers read, and which copy is used.

`part` names them, `piece` verifies one, `vendors` has the vendors' addresses and forms, `choice` picks the set that
evidence is verified with, `bundle_file` is the form in which people carry them. Pure: nothing here asks or stores.
"""
