"""Python environments of tasks: built once where there is a network, unpacked on each node without one.

store = EnvStore(settings.hpc.cache, settings.hpc.scratch, settings.packages, clock,
                 sources.git.configured_credentials(settings.git))            # hpc_agent.envs.env_store
request = request_for(task.script, requirement_files, settings.packages)      # hpc_agent.envs.env_request
staged = store.stage(request, progress)                                       # login node; staged.key
usable = store.use(staged.key, progress, task=task.id)                        # compute node; usable.python
usable = store.use(request, progress, task=task.id)                           # the same, without a key
"""
