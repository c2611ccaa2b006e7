"""A member of policy boards that is a program: rules in CEL, judged over what a proposal means, signed as a decision.

`rules` reads what the owner wrote, `listed` the measurements that somebody signed, `material` what rules may look at,
`expression` is the only module that knows CEL, `confined` runs it in a process of its own, `decide` turns results into
a choice, `watch` is the loop. It uses the public API alone, and knows no store and no part of the service.
"""
