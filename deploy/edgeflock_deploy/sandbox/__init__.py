"""What the kernel offers to confine a process that runs what is not believed. Users of it decide who may do what."""
