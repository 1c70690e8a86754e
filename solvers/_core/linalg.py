from typing import Any, NamedTuple
class LinearSolve(NamedTuple):
    x: Any
    iterations: int
    residual: Any
    flag: str
def pcg(matvec, b, *, be, x0=None, precond=None, project=None, norm=None, tol=1e-10, maxiter=None, check_every=None):
    xp=be.xp
    norm=norm or (lambda r: xp.sqrt(xp.dot(r,r)))
    x=xp.zeros_like(b); r=b.copy(); target=tol*float(norm(b)); p=None; k=0
    while k<maxiter:
        z=precond(r); z=project(z); rn=float(r@z)
        p=z if p is None else z+(rn/rz)*p
        rz=rn; q=matvec(p); pq=float(p@q)
        if not (pq>0 and rz>0): return LinearSolve(x,k,0,'breakdown')
        k+=1
        al=rz/pq; x+=al*p; r-=al*q
        if float(norm(r))<=target: return LinearSolve(x,k,0,'converged')
    return LinearSolve(x,k,0,'maxiter')
