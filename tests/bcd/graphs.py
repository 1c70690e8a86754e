"""Graphs for tests, and what they must satisfy, in plain Python."""

import numpy as np
import scipy.sparse as sp


def weighted(i, j, w, n):
    """Return the symmetric weights of edges (i, j)."""
    W = sp.coo_array((w, (i, j)), (n, n)).tocsr()
    return (W + W.T).tocsr()


def lattice(height, width):
    """Return the weights of a lattice whose nodes are numbered row by row; all are 1."""
    at = np.arange(height * width).reshape(height, width)
    i = np.r_[at[:, :-1].ravel(), at[:-1].ravel()]
    j = np.r_[at[:, 1:].ravel(), at[1:].ravel()]
    return weighted(i, j, np.ones(i.size), height * width)


def random_graph(n, edges, seed):
    """Return weights of about so many edges."""
    rng = np.random.default_rng(seed)
    i, j = rng.integers(0, n, (2, edges))
    W = sp.coo_array((rng.uniform(0.5, 2.0, edges), (i, j)), (n, n)).toarray()
    W = np.triu(W + W.T, 1)
    return sp.csr_array(W + W.T)


def random_forest(n, seed, *, cut=0.1, path=0):
    """Return weights of a forest in random order: a path, then nodes that hang anywhere."""
    rng = np.random.default_rng(seed)
    parent = np.array([0] + [i - 1 if i < path else rng.integers(0, i) for i in range(1, n)])
    keep = (np.arange(n) > 0) & (rng.random(n) >= cut)
    shuffle = rng.permutation(n)
    i, j = shuffle[np.flatnonzero(keep)], shuffle[parent[keep]]
    return weighted(i, j, rng.uniform(0.5, 2.0, i.size), n)


def laplacian(W, shift=0.0):
    """Return the Laplacian of W plus a diagonal."""
    return (sp.diags_array(np.asarray(W.sum(axis=1)).ravel() + shift) - W).tocsr()


def number_of_trees(W, nodes):
    """Return how many components the subgraph of `nodes` has; -1 if it has a cycle."""
    inside, seen, trees, edges = set(map(int, nodes)), set(), 0, 0
    for start in inside:
        if start in seen:
            continue
        trees += 1
        stack = [start]
        seen.add(start)
        while stack:
            v = stack.pop()
            for u in W.indices[W.indptr[v] : W.indptr[v + 1]]:
                if int(u) in inside and int(u) != v:
                    edges += 1
                    if int(u) not in seen:
                        seen.add(int(u))
                        stack.append(int(u))
    return trees if edges // 2 == len(inside) - trees else -1


def neighbours(W, v):
    """Return the neighbours of a node."""
    return [int(u) for u in W.indices[W.indptr[v] : W.indptr[v + 1]] if int(u) != v]
