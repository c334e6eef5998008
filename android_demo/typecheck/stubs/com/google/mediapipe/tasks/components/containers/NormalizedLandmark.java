// Stands for com.google.mediapipe:tasks-core:0.10.35: no more of it than the app uses.
package com.google.mediapipe.tasks.components.containers;

public abstract class NormalizedLandmark {
    public abstract float x();

    public abstract float y();

    public abstract float z();
}
