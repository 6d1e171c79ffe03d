"""What the process runs on: model hubs, devices, other libraries' noise, and the repair of torchvision."""
