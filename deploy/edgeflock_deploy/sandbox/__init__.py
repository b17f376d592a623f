"""What the kernel offers to confine a process that runs what is not believed. Who may do what is decided by its users."""
