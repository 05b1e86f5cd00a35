"""What a region must not forget: tables, their migrations, and the one class that reads and writes them."""
