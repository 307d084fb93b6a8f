"""The machine under the program: processors, libraries, devices."""
