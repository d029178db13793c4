"""Relay: the way of compute nodes to the ClearML server where they have none of their own.

On the node the agent runs an HTTP proxy on the loopback address (``node_proxy``), which its own calls and the SDK in
the task's process use. The daemon on the login node opens the connections (``connector``), to the ClearML server only.
Between the two the bytes travel over the cluster's network (``network_link``) or through files (``file_link``).
"""
