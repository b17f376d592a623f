"""A fleet in a test tube: real controller logic, real agents and the real judge, on simulated time, wire and disks."""
