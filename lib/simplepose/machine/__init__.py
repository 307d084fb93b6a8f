"""What depends on the machine: processors, libraries, devices, processes, logs."""
