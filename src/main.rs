//! The program `popa3d`: everything is in the library, so that tests reach it too.

fn main() -> std::process::ExitCode {
    popa3d::cli::main()
}
