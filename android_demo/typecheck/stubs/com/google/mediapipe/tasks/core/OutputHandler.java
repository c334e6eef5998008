// Stands for com.google.mediapipe:tasks-core:0.10.35: no more of it than the app uses.
package com.google.mediapipe.tasks.core;

public class OutputHandler<OutputT extends TaskResult, InputT> {
    public interface ResultListener<OutputT extends TaskResult, InputT> {
        void run(OutputT result, InputT input);
    }
}
