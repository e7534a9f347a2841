"""Whatever computes, behind one seam: tokens in, raw outputs out."""
