"""The tour behind `python -m solvers`: a real, bundled problem per family, solved and certified.

A family adds its stop with a line below and a module of that name beside this file, whose function
``visit(trip)`` takes a `Trip` and returns an `Outcome`. Screen, files and exit code are the
guide's; it loads a stop's module only when it goes there.
"""

# Name of the stop, which is that of its family, and what is solved there.
STOPS = {
    "ot": "colour transfer between two photographs",
    "constrained": "digits told apart by weights that shifts and turns leave alone",
    "completion": "a photograph with 70 % of its pixels missing",
    "bcd": "a sparse classifier of tumours, along its path",
    "relu": "a network that tells tumours apart, and what no other could gain",
    "bilevel": "a thousand labels, half of them wrong, told apart by fifty that are right",
}
