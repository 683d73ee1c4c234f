"""What networks are fed: data sets, streams, random numbers and augmentation on the device."""
