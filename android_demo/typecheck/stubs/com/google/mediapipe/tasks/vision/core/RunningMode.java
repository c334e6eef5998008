// Stands for com.google.mediapipe:tasks-vision:0.10.35: no more of it than the app uses.
package com.google.mediapipe.tasks.vision.core;

public enum RunningMode { IMAGE, VIDEO, LIVE_STREAM }
