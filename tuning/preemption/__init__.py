"""A node that is taken back by its cloud: the notice is heard, and its trials leave in good order.

On a notice two things are done. Ray is told to place nothing new on the node (it drains it). And a
mark is left on the machine, which the workers of that node look for at each report: a trial then
writes a checkpoint, whatever ``checkpoint_when`` says, and, once Ray drains the node, gives its
place up, to go on elsewhere. A node without trials that is drained leaves the cluster by itself.

The modules here need the standard library alone, and Ray where Ray is told: cluster.yaml copies
just them to the workers, which have the rest of the project only while a search runs.
"""
