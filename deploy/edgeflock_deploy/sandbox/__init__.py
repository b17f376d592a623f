"""What the kernel offers to confine a process that runs what is not believed. Its users decide who may do what."""
