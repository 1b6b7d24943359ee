"""`python -m red_ray.cli`: the same as `red-ray`, for a job's entry point."""

from red_ray.cli import main

if __name__ == "__main__":
    main()
