<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.22.0" styleCategories="Symbology">
  <renderer-v2 type="categorizedSymbol" attr="alignment" symbollevels="0" enableorderby="0" forceraster="0">
    <categories>
      <category symbol="0" value="before" label="Residual before alignment (length: see scale)" render="true"/>
      <category symbol="1" value="after" label="Residual after alignment (length: see scale)" render="true"/>
    </categories>
    <symbols>
      <symbol name="0" type="line" alpha="1" clip_to_extent="1" force_rhr="0">
        <layer class="ArrowLine" enabled="1" locked="0" pass="0">
          <Option type="Map">
            <Option name="arrow_start_width" type="QString" value="0.35"/>
            <Option name="arrow_start_width_unit" type="QString" value="MM"/>
            <Option name="arrow_width" type="QString" value="0.35"/>
            <Option name="arrow_width_unit" type="QString" value="MM"/>
            <Option name="head_length" type="QString" value="1.5"/>
            <Option name="head_length_unit" type="QString" value="MM"/>
            <Option name="head_thickness" type="QString" value="0.9"/>
            <Option name="head_thickness_unit" type="QString" value="MM"/>
            <Option name="head_type" type="QString" value="0"/>
            <Option name="arrow_type" type="QString" value="0"/>
            <Option name="is_curved" type="QString" value="0"/>
            <Option name="is_repeated" type="QString" value="0"/>
            <Option name="offset" type="QString" value="0"/>
            <Option name="offset_unit" type="QString" value="MM"/>
          </Option>
          <prop k="arrow_start_width" v="0.35"/>
          <prop k="arrow_start_width_unit" v="MM"/>
          <prop k="arrow_width" v="0.35"/>
          <prop k="arrow_width_unit" v="MM"/>
          <prop k="head_length" v="1.5"/>
          <prop k="head_length_unit" v="MM"/>
          <prop k="head_thickness" v="0.9"/>
          <prop k="head_thickness_unit" v="MM"/>
          <prop k="head_type" v="0"/>
          <prop k="arrow_type" v="0"/>
          <prop k="is_curved" v="0"/>
          <prop k="is_repeated" v="0"/>
          <prop k="offset" v="0"/>
          <prop k="offset_unit" v="MM"/>
          <symbol name="@0@0" type="fill" alpha="1" clip_to_extent="1" force_rhr="0">
            <layer class="SimpleFill" enabled="1" locked="0" pass="0">
              <Option type="Map">
                <Option name="color" type="QString" value="213,94,0,255"/>
                <Option name="outline_style" type="QString" value="no"/>
                <Option name="style" type="QString" value="solid"/>
              </Option>
              <prop k="color" v="213,94,0,255"/>
              <prop k="outline_style" v="no"/>
              <prop k="style" v="solid"/>
            </layer>
          </symbol>
        </layer>
      </symbol>
      <symbol name="1" type="line" alpha="1" clip_to_extent="1" force_rhr="0">
        <layer class="ArrowLine" enabled="1" locked="0" pass="0">
          <Option type="Map">
            <Option name="arrow_start_width" type="QString" value="0.35"/>
            <Option name="arrow_start_width_unit" type="QString" value="MM"/>
            <Option name="arrow_width" type="QString" value="0.35"/>
            <Option name="arrow_width_unit" type="QString" value="MM"/>
            <Option name="head_length" type="QString" value="1.5"/>
            <Option name="head_length_unit" type="QString" value="MM"/>
            <Option name="head_thickness" type="QString" value="0.9"/>
            <Option name="head_thickness_unit" type="QString" value="MM"/>
            <Option name="head_type" type="QString" value="0"/>
            <Option name="arrow_type" type="QString" value="0"/>
            <Option name="is_curved" type="QString" value="0"/>
            <Option name="is_repeated" type="QString" value="0"/>
            <Option name="offset" type="QString" value="0"/>
            <Option name="offset_unit" type="QString" value="MM"/>
          </Option>
          <prop k="arrow_start_width" v="0.35"/>
          <prop k="arrow_start_width_unit" v="MM"/>
          <prop k="arrow_width" v="0.35"/>
          <prop k="arrow_width_unit" v="MM"/>
          <prop k="head_length" v="1.5"/>
          <prop k="head_length_unit" v="MM"/>
          <prop k="head_thickness" v="0.9"/>
          <prop k="head_thickness_unit" v="MM"/>
          <prop k="head_type" v="0"/>
          <prop k="arrow_type" v="0"/>
          <prop k="is_curved" v="0"/>
          <prop k="is_repeated" v="0"/>
          <prop k="offset" v="0"/>
          <prop k="offset_unit" v="MM"/>
          <symbol name="@1@0" type="fill" alpha="1" clip_to_extent="1" force_rhr="0">
            <layer class="SimpleFill" enabled="1" locked="0" pass="0">
              <Option type="Map">
                <Option name="color" type="QString" value="0,114,178,255"/>
                <Option name="outline_style" type="QString" value="no"/>
                <Option name="style" type="QString" value="solid"/>
              </Option>
              <prop k="color" v="0,114,178,255"/>
              <prop k="outline_style" v="no"/>
              <prop k="style" v="solid"/>
            </layer>
          </symbol>
        </layer>
      </symbol>
    </symbols>
  </renderer-v2>
  <layerGeometryType>1</layerGeometryType>
</qgis>
