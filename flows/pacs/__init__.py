"""Studies from a PACS, and released packs to one: by DICOMweb or by DICOM's own protocol."""
