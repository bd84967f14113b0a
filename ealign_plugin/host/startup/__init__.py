"""The start-up hook: setup.py copies its two files into site-packages."""
