"""Sources of tasks: fetched to the shared cache where there is a network, checked out from there on a node.

store = SourceStore(settings.hpc.cache, settings.git, clock)      # hpc_agent.sources.source_store
staged = store.stage(task.script, progress)                       # login node; JSON for the run directory
requirement_files = store.requirement_files(task.script, staged)  # for envs.env_request.request_for
workspace = store.checkout(task.script, staged, folder, progress) # compute node, offline
workspace.command(python, environ)                                # run in workspace.cwd
"""
