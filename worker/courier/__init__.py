"""The courier: sends what is saved elsewhere, and tells of devices and of the box."""
