def sns_paper(): pass
