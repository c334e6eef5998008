// Stands for com.google.mediapipe:tasks-core:0.10.35: no more of it than the app uses.
package com.google.mediapipe.tasks.core;

public interface TaskResult {
    long timestampMs();
}
