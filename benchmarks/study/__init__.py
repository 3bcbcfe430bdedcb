"""What the perceptual term does for a super-resolution network, and which form of it: a controlled study.

`matrix` says what is trained, `data` from which photos, `matching` how strong each arm's loss is, `options` writes
BasicSR's option files, `runs` trains and judges them in processes of their own, `judges` (with `detail`) measures,
`intervals` says how sure a difference is, `tables` and `pictures` show it. `feature_l1` is BasicSR's PerceptualLoss
on the extractor of CLPLoss.
"""
