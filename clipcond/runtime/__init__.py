"""The surroundings of the process: model hubs, devices, other libraries' noise, and the repair of torchvision."""
