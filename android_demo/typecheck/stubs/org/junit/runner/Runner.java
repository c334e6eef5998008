// Stands for junit:junit:4.13.2: no more of it than the app uses.
package org.junit.runner;

public abstract class Runner {
}
