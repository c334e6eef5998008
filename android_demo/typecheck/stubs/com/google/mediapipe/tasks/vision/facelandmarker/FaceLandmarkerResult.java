// Stands for com.google.mediapipe:tasks-vision:0.10.35: no more of it than the app uses.
package com.google.mediapipe.tasks.vision.facelandmarker;

import com.google.mediapipe.tasks.components.containers.NormalizedLandmark;
import com.google.mediapipe.tasks.core.TaskResult;
import java.util.List;

public abstract class FaceLandmarkerResult implements TaskResult {
    @Override public abstract long timestampMs();

    public abstract List<List<NormalizedLandmark>> faceLandmarks();
}
