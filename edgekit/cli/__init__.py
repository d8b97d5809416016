"""The command line: parse, call, print. It holds no logic, and options are generated, never typed twice."""
