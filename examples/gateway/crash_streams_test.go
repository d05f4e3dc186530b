package main

func playStreams([]string) {}
