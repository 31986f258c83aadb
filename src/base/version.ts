/** The version of this program, as the build wrote it into the binary. */

/** Put in by appliance/build.ts (`--define`); absent when run from source. */
declare const POSTERN_VERSION: string | undefined

/** `0.1.0+1a2b3c4`: the version of package.json and the commit; `0.0.0-source` when not built. */
export const VERSION: string =
  typeof POSTERN_VERSION === 'string' ? POSTERN_VERSION : '0.0.0-source'
