package dev.mobilebilayer.core

/** Bad input: says what we got, what we need and what to do next. The one error that people see. */
class MobileBilayerError(message: String, cause: Throwable? = null) : Exception(message, cause)
