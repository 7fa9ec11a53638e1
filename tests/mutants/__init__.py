"""Planted single-point bugs: which of them do the tests notice?"""
