"""What a sandbox may see, do and use: namespaces, mounts, seccomp, Landlock, rlimits, cgroups."""
